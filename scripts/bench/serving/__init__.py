"""The serving benchmark: the real server beside the bare session, Triton, FastAPI and MLServer on the same cores."""
