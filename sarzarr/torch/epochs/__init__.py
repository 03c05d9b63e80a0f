"""The epoch on which the processes of a training agree."""
