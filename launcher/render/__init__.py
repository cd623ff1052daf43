"""A profile written down for something else that starts it: compose, Helm, systemd, Slurm, Ray; and its dashboards."""
