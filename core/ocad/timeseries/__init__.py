"""Frames of measurements, and what forecasters of them share: windows, scaling, baselines, significance, plots."""
