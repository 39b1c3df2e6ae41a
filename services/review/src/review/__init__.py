"""The queue of people: escalated requests wait here until enough of them have decided."""
