"""A policy's games as pictures: in a video, or in a window while they are played."""

STEPS_PER_SECOND = 15  # the console's 60 frames/s, 4 frames a step
