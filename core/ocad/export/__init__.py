"""From a trained torch module to a served graph: the export, the runtime that answers it, and the proof that both agree."""
