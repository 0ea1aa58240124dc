"""Makes the embedded model: draws pages, trains a small Qwen2-VL / ColQwen2 on them, exports it."""

import os

# Threads that spin at barriers lose everything on a shared machine: a step of the small model took
# 11.8 s with the default policy beside other work, 4.0 s with this one (two cores, load 5).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
