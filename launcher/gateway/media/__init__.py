"""Pictures and clips of requests: fetched, checked, decoded aside, brought to a budget, kept for later requests."""
