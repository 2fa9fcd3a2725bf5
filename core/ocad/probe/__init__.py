"""Probes that measure a link, and the testbed on which the project records its own trace."""
