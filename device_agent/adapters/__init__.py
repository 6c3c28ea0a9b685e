"""The outside world behind the ports: broker, disk, processes."""
