"""Plug-ins that need something that does not ship; a command puts them into a home beside it (`pacs models add`)."""
