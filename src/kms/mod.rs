//! Master-key providers: each wraps and unwraps data keys; caching, retry and measurement are wrappers.
