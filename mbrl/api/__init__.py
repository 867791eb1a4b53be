"""The face: everything that `import mbrl` offers. The command line calls these functions and nothing else."""
