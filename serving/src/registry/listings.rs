//! Listings without the keys that are no paths, such as `models//`: the client of the store refuses a listing as a whole
//! for one of them, and whoever may write anything into a bucket would keep everybody from following.

use std::pin::Pin;

use http::Method;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::path::Path as Key;

/// Connects as object stores do, and cleans their listings.
#[derive(Debug, Default)]
pub struct Connector(ReqwestConnector);

#[derive(Debug)]
struct Service(HttpClient);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        self.0.connect(options).map(|client| HttpClient::new(Service(client)))
    }
}

impl HttpService for Service {
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let query = request.uri().query().unwrap_or_default();
            let lists = request.method() == Method::GET && query.split('&').any(|pair| pair == "list-type=2");
            let response = self.0.execute(request).await?;
            if !lists || !response.status().is_success() {
                return Ok(response);
            }
            let (head, body) = response.into_parts();
            let body = body.bytes().await?;
            // what is no text is left to the client's own complaint
            let clean = std::str::from_utf8(&body).map(|text| clean(text, "Contents", "Key"));
            let clean = clean.map(|text| clean_prefixes(&text));
            Ok(HttpResponse::from_parts(head, clean.map_or_else(|_| body.clone().into(), Into::into)))
        })
    }
}

fn clean_prefixes(text: &str) -> String {
    clean(text, "CommonPrefixes", "Prefix")
}

/// The listing `text` without the elements of that name whose `key` is no path.
fn clean(text: &str, element: &str, key: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, (inner, after))) =
        rest.split_once(&open).and_then(|(before, found)| Some((before, found.split_once(&close)?)))
    {
        kept.push_str(before);
        if is_path(inner, key) {
            kept.extend([&open, inner, &close]);
        }
        rest = after;
    }
    kept + rest
}

/// Whether the `key` that stands in `element` is a path.
fn is_path(element: &str, key: &str) -> bool {
    let written = element.split_once(&format!("<{key}>")).and_then(|(_, rest)| rest.split_once(&format!("</{key}>")));
    let Some((written, _)) = written else { return false };
    quick_xml::escape::unescape(written).is_ok_and(|key| Key::parse(key).is_ok())
}

#[cfg(test)]
mod tests {
    use super::{clean, clean_prefixes};

    #[test]
    fn what_is_no_path_is_left_out() {
        let contents = |keys: &[&str]| {
            let one = |key: &&str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
            format!("<R><Name>b</Name>{}<KeyCount>9</KeyCount></R>", keys.iter().map(one).collect::<String>())
        };
        let good = ["reg/", "reg/a", "reg/a&amp;b", "reg/&lt;", "reg/&#228;"];
        let bad = ["reg//", "//", "reg//a", "reg/./a", "reg/../a", "..", "reg/&#1;", "reg/&#x7;a", "reg/&unknown;"];
        assert_eq!(clean(&contents(&good), "Contents", "Key"), contents(&good));
        assert_eq!(clean(&contents(&bad), "Contents", "Key"), contents(&[]));
        let mixed: Vec<&str> = good.iter().zip(bad).flat_map(|(good, bad)| [bad, good]).collect();
        assert_eq!(clean(&contents(&mixed), "Contents", "Key"), contents(&good));
    }

    #[test]
    fn prefixes_are_cleaned_as_keys_are() {
        let text = "<R><CommonPrefixes><Prefix>reg//</Prefix></CommonPrefixes><CommonPrefixes><Prefix>reg/a/</Prefix></CommonPrefixes></R>";
        assert_eq!(clean_prefixes(text), "<R><CommonPrefixes><Prefix>reg/a/</Prefix></CommonPrefixes></R>");
        for cut in ["", "<R><Contents><Key>reg//", "</Contents>", "<CommonPrefixes></CommonPrefixes"] {
            assert_eq!(clean_prefixes(cut), cut);
        }
    }
}
