"""Tests of fdfa, grouped by what decides whether the answer is right."""
