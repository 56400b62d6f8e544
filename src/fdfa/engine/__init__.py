"""The engine: taps, probes, tangents, feedback and the credit node. It knows no method."""
