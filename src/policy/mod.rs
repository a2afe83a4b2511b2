//! What is protected: field rules, the tree of protected paths per namespace, and every reason to refuse.
