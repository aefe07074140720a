"""Tables as inspection firms keep them: CSV, Excel, JSONL or Parquet; each row becomes a record or a reason."""
