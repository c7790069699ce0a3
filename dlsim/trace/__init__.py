"""What happened: traces, metrics, event log, files."""
