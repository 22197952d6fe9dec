"""Clips, cards and a consumer to try framewarden with; nothing here is imported by the service."""
