"""Where events and runs are durable. `base` is the contract; `sqlite` keeps it in one file."""
