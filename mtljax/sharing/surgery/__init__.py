"""Models that change between runs: tasks are added or taken away, parts are frozen or carried over."""
