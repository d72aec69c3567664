"""Curator: an image build farm and registry curator for deep-learning images."""
