"""Property tests fail for what they find, never for how long a busy machine takes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("layers", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("layers")
