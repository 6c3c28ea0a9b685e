"""The REST API: typed requests and answers over the use cases, one file for each kind of resource."""
