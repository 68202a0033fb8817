"""The questions, one YAML file each."""
