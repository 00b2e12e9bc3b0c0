"""The dear operations, each with a reference that defines it and faster forms."""
