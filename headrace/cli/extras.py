"""Names the extra of the package that provides a missing module."""

EXTRAS = {
    "bytewax": "stream",
    "confluent_kafka": "stream",
    "charset_normalizer": "stream",
    "defusedxml": "stream",
    "polars": "stream",
    "pycountry": "stream",
    "python_calamine": "stream",
    "faiss": "serve",
    "fastapi": "serve",
    "grpc": "serve",
    "grpc_health": "serve",
    "grpc_reflection": "serve",
    "grpc_status": "serve",
    "strawberry": "serve",
    "limits": "serve",
    "yaml": "serve",
    "uvicorn": "serve",
    "implicit": "batch",
    "lightgbm": "batch",
    "optuna": "batch",
    "plotly": "batch",
    "scipy": "batch",
}


def extra_of(error: ModuleNotFoundError) -> str | None:
    """Return the extra that brings the missing package, None where no extra does."""
    return EXTRAS.get((error.name or "").partition(".")[0])
