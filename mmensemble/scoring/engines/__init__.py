"""Scoring by many workers: the function that they call, the plan of a job, and the engines that run it."""
