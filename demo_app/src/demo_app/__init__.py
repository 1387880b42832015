"""A small FastAPI service that shows how to log: see logs.py, which other projects can take over as it is."""
