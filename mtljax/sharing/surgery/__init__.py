"""Changes of a trained model between runs: tasks are added or removed, parameters are frozen or carried over."""
