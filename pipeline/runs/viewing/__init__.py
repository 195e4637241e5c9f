"""Shows the map page of an edition: a web server on this machine for one user, and nothing beside the product."""
