"""Where things go when nobody says otherwise, relative to the working directory."""

DEFAULT_OUT = "runs"
DEFAULT_STORAGE = "sqlite:///runs/studies.db"
DEFAULT_TRACKING = "sqlite:///runs/mlflow.db"
