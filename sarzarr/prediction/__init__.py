"""Models over scenes: what a network makes of every pixel of a scene, as layers of that scene."""
