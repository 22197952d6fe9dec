"""The published shape of events: ``models.py`` is the source, ``events-1.json`` is generated from it."""
