"""The web page: files that the gateway serves as they are. No build step; what is not ours is in vendor/."""
