"""At what size a question is asked, one YAML file each."""
