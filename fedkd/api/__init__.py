"""What Python calls: a thin layer over the jobs, and what `fedkd` itself shows of it."""
