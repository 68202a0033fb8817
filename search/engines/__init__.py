"""Where workers run: in processes of this machine, or on Ray. The storage of the study stays the truth."""
