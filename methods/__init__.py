"""Proposed methods, one file each; ``harness list methods`` finds what is added here."""
