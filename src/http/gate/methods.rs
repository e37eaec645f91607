//! Routes whose handlers begin with a judgement.

use super::bearer::{Bearer, OurPage};
use super::caller::{Caller, Unjudged};
use crate::http::gateway::Gateway;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use std::sync::Arc;

/// The methods of one path. Handlers whose first argument is no judgement are not taken.
#[derive(Debug)]
pub(in crate::http) struct Methods(MethodRouter<Arc<Gateway>>);

/// Arguments of a handler that begin with a judgement.
pub(in crate::http) trait BeginsWithJudgement {}

/// Says so of handlers with up to seven more arguments. The first type of the tuple is axum's own.
macro_rules! begins_with_judgement {
    ($($more:ident)*) => {
        impl<M, A, $($more),*> BeginsWithJudgement for (M, Caller<A>, $($more,)*) {}
        impl<M, $($more),*> BeginsWithJudgement for (M, Bearer, $($more,)*) {}
        impl<M, $($more),*> BeginsWithJudgement for (M, OurPage, $($more,)*) {}
        impl<M, $($more),*> BeginsWithJudgement for (M, Unjudged, $($more,)*) {}
    };
}

begins_with_judgement! {}
begins_with_judgement! { B }
begins_with_judgement! { B C }
begins_with_judgement! { B C D }
begins_with_judgement! { B C D E }
begins_with_judgement! { B C D E F }
begins_with_judgement! { B C D E F G }
begins_with_judgement! { B C D E F G H }

/// GET, and HEAD unless that has a handler of its own.
pub(in crate::http) fn get<H, T>(handler: H) -> Methods
where
    H: Handler<T, Arc<Gateway>>,
    T: BeginsWithJudgement + 'static,
{
    Methods(on(MethodFilter::GET, handler))
}

/// POST alone.
pub(in crate::http) fn post<H, T>(handler: H) -> Methods
where
    H: Handler<T, Arc<Gateway>>,
    T: BeginsWithJudgement + 'static,
{
    Methods(on(MethodFilter::POST, handler))
}

impl Methods {
    /// The same, and this for another method.
    pub(in crate::http) fn and<H, T>(self, method: MethodFilter, handler: H) -> Self
    where
        H: Handler<T, Arc<Gateway>>,
        T: BeginsWithJudgement + 'static,
    {
        Self(self.0.on(method, handler))
    }
}

impl From<Methods> for MethodRouter<Arc<Gateway>> {
    fn from(methods: Methods) -> Self {
        methods.0
    }
}
