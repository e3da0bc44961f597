"""Countries of many stores whose copies come and go, judged by the oracle (field_lab/oracle)."""
