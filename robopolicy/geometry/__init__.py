"""Cameras, keypoints and rigid motions: how a motion looks in pictures, and back; numpy only."""
