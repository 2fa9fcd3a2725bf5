"""What detectors share: scoring, calibration, hold-down, event metrics, incidents and alerts."""
