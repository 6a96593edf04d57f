"""MiniSGL's operator: turns a MiniSGLModel into pods that serve it, and says honestly how that goes."""
