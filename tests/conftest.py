"""What holds for every test: generated values are the same in each run, and a busy machine is no reason to fail."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fairlead", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fairlead")
