"""The composition root: profile, plan, engines and gateway put together into one running endpoint."""
