"""The command line: one file per command; `main` finds them, `output` is the only place that formats results and errors."""
