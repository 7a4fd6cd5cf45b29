"""Query parameters that a route does not have: a misspelt one would silently do nothing."""

from fastapi import Request
from fastapi.routing import APIRoute

from schemas.similar_names import allowed
from serving.engine.recommender import BadRequest


def refuse_unknown_parameters(request: Request) -> None:
    """Raise BadRequest for a query parameter that the route does not have; a route without any takes all."""
    route = request.scope.get("route")
    names = [one.alias for one in route.dependant.query_params] if isinstance(route, APIRoute) else []
    for name in request.query_params if names else ():
        if name not in names:
            raise BadRequest(name, f"there is no such parameter{allowed(name, names)}")
