"""Tests of the test world: what others build on must itself be true."""
