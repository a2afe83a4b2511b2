//! What hello tells a driver about the deployment, rewritten to the proxy's own addresses and limits.
