"""The sweep file: what may stand in it and what it means."""
