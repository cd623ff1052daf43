"""The names that spans use: OpenTelemetry's for HTTP and for generative AI, and ours, which begin with launcher.

Those for generative AI (github.com/open-telemetry/semantic-conventions-genai) are still in development: what changes
there is changed here and nowhere else. vLLM's own spans have older ones, such as gen_ai.usage.prompt_tokens.
"""

from __future__ import annotations

SERVICE_NAME, SERVICE_VERSION = "service.name", "service.version"

METHOD, STATUS, ROUTE = "http.request.method", "http.response.status_code", "http.route"
ERROR_TYPE = "error.type"

OPERATION, PROVIDER = "gen_ai.operation.name", "gen_ai.provider.name"
MODEL, STREAM = "gen_ai.request.model", "gen_ai.request.stream"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
FIRST_CHUNK_S = "gen_ai.response.time_to_first_chunk"

REQUEST_ID = "launcher.request_id"  # by which the access log, and the engine's, have the same request
OUTCOME, MODE, PRIORITY = "launcher.outcome", "launcher.mode", "launcher.priority"
REPLICA, RETRIES, RESUMED = "launcher.replica", "launcher.retries", "launcher.resumed"
QUEUE_S, MEDIA_S, RECEIVE_S = "launcher.queue_s", "launcher.media_s", "launcher.receive_s"
PRICED_TOKENS, IMAGE_TOKENS, PIECES = "launcher.priced_prompt_tokens", "launcher.image_tokens", "launcher.pieces"

SENT, FIRST_TOKEN = "launcher.sent_to_engine", "launcher.first_token"  # events within a span

# What the conventions call it that a route does; they have no word for the others.
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/cohere/v2/chat": "chat",
    "/api/v1/generate": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v2/embed": "embeddings",
}
